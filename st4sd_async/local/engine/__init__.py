"""The interface of engines, and the engine that executes runs with st4sd-runtime-core."""
