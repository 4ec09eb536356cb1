"""The client of st4sd-runtime-core gets the results of simulated and real runs from the datastore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.local.incumbent.finished import INCUMBENT, Finished

pytestmark = INCUMBENT


def test_documents_are_found_by_their_fields(finished: Finished) -> None:
    """Filters are ids, components, references, stages and file names; names are patterns."""
    api, instance = finished.api, finished.instances["demo"]

    experiment = api.cdb_get_document_experiment_for_rest_uid(finished.runs["demo"])
    metadata = api.cdb_get_document_user_metadata_for_rest_uid(finished.runs["demo"])

    assert experiment["instance"] == metadata["instance"] == instance
    assert (metadata["campaign"], experiment["metadata"]["userMetadata"]["campaign"]) == ("x", "x")
    assert api.cdb_get_document_user_metadata(instance=instance) == [metadata]
    assert api.cdb_get_document(query={"type": "experiment", "name": "demo", "instance": instance}) == [experiment]

    def names(**filters: Any) -> list[str]:
        return [
            document["component-identifier"]
            for document in api.cdb_get_document_component(instance=instance, **filters)
        ]

    assert names() == ["stage0.Compute", "stage1.Report"]
    assert names(component="Comp.*") == names(component="stage0.Compute") == names(stage=0) == ["stage0.Compute"]
    assert names(filename="b.bin") == names(query={"producers": {"$ne": {}}}) == ["stage1.Report"]
    assert names(filename="out.stdout") == names()
    assert names(component="Ghost") == []
    assert api.cdb_get_property_names(experiment) == ["energy", "weight"]
    assert api.cdb_get_key_output_names(experiment) == ["Energies", "Folder"]


def test_properties_are_files_and_parts_of_documents(finished: Finished) -> None:
    """Both contain the same values."""
    api = finished.api

    (document,), (frame,) = api.cdb_get_properties(instance=finished.instances["demo"], properties=["energy"])
    table = api.cdb_get_document_experiment_for_rest_uid(
        finished.runs["demo"], include_properties=["Energy"], stringify_nan=True
    )

    assert document["instance"] == finished.instances["demo"]
    assert frame["input-id"].tolist() == ["CCCC", "CCO", "NAN"]
    assert frame.fillna("NaN").to_dict("list") == table["interface"]["propertyTable"]
    assert table["interface"]["propertyTable"]["energy"] == [-6.0, -4.5, "NaN"]


def test_files_are_read(finished: Finished) -> None:
    """By path and by pattern, as tables, and the output of components."""
    api, instance = finished.api, finished.instances["demo"]

    log = api.cdb_get_file_from_instance_uri(instance, "output/experiment.log")
    raw = api.cdb_get_components_raw_files(instance=instance, filename="(b.bin|energies.csv)")
    documents, matrices = api.cdb_get_data(instance=instance, component="Compute", filename="energies.csv")
    printed = api.cdb_get_components_last_stdout(instance=finished.instances["fail"], component="stage0.Boom")

    assert b"INFO" in log
    contents = {uri.partition(".instance/")[2]: content for uri, (_, content) in raw.items()}
    assert sorted(contents) == ["stages/stage0/Compute/energies.csv", "stages/stage1/Report/results/sub/b.bin"]
    assert contents["stages/stage1/Report/results/sub/b.bin"] == bytes(range(256))
    assert [document["name"] for document in documents] == ["Compute"]
    assert matrices[0].columnHeaders() == ("input-id", "smiles", "energy", "weight")
    assert [content for _, content in printed.values()] == [b"about to fail\n"]


def test_the_directory_of_a_component_is_downloaded(finished: Finished, tmp_path: Path) -> None:
    """It is extracted and the archive is removed."""
    archive = finished.api.cdb_download_component_files(finished.instances["demo"], 1, "Report", str(tmp_path))

    assert not Path(archive).exists()
    assert (tmp_path / "results/sub/b.bin").read_bytes() == bytes(range(256))
    assert (tmp_path / "out.stdout").is_file()


def test_the_report_in_detail_is_parsed(finished: Finished) -> None:
    """Each component has a row in its stage, even if it never ran."""
    api = finished.api

    report = api.cdb_get_detailed_status_report(finished.instances["fail"], print_too=False)
    tables = api.cdb_get_detailed_status_report(finished.instances["demo"], pretty_print_instead=False, print_too=False)

    assert "stage0.Boom, failed, local, True, KnownIssue, " in report
    assert "stage1.After, component_shutdown, local, False, Killed, N/A, N/A" in report
    assert list(tables) == ["0", "1"]
    assert tables["1"]["engine"]["componentStates"].getElements(0)["reference"] == "stage1.Report"
