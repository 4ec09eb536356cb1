"""What an engine has to do, and the engine that runs experiments with st4sd-runtime-core."""
