"""Each statement of the page about trust has a test."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import anyio
import pytest

import st4sd_async
from st4sd_async import Client
from st4sd_async.local import LocalServer

PAGE = Path(st4sd_async.__file__).parent / "docs" / "what_is_trusted.md"
HERE = Path(__file__).parent
HOSTILE = "properties/test_hostile.py::test_a_hostile_service_causes_only_our_errors_and_writes_nothing_elsewhere"
IMPORT = "client/test_import.py::"
CREDENTIALS = "faults/test_credentials.py::"
BOUNDED = "faults/test_bounded_bodies.py::"

PROOFS = {
    # the service
    "receive your API key": [f"{CREDENTIALS}test_a_key_is_a_bearer_a_token_a_cookie_and_the_key_wins"],
    "say anything about runs": [
        "properties/test_hostile.py::test_every_field_of_every_reply_is_shown_without_control_characters"
    ],
    "refuse a request": ["faults/test_repeats.py::test_the_whole_time_is_bounded", HOSTILE],
    "put any text into a message": ["util/test_printable.py::test_the_text_of_an_error_holds_no_control_characters"],
    "give you an id that leads out of a folder": [
        "faults/test_rest_uids.py::test_no_verb_takes_what_is_not_a_rest_uid",
        "faults/test_rest_uids.py::test_a_bad_item_of_the_list_is_left_out_with_one_warning",
    ],
    "make a start happen twice": ["faults/test_start_once.py::", "batch/test_batch_absence.py::"],
    "have a response taken for the response": [
        "faults/test_surplus_answers.py::test_no_start_gets_the_answer_to_another"
    ],
    "control your terminal": [
        "cli/test_hostile.py::test_texts_of_the_service_cannot_control_the_terminal",
        "util/test_printable.py::test_a_log_record_is_one_line_and_holds_no_control_characters",
        "properties/test_hostile.py::test_every_field_of_every_reply_is_shown_without_control_characters",
    ],
    "hide the rest of a response": ["faults/test_odd_fields.py::"],
    "write, replace or delete anything outside": [HOSTILE, "results/downloads/test_links.py::"],
    "replace the files in which this package records": [
        "util/test_file_names.py::test_our_names_are_reserved_however_they_are_spelled"
    ],
    "have one key-output replace another": [
        "util/test_file_names.py::test_a_server_cannot_choose_two_names_with_one_digest",
        "util/test_file_names.py::test_no_two_names_share_a_folder_anywhere",
    ],
    "fill your memory with a response": [
        f"{BOUNDED}test_a_body_without_end_is_cut_at_the_bound",
        f"{BOUNDED}test_a_packed_bomb_takes_no_memory",
    ],
    "get your credentials sent elsewhere": [
        f"{CREDENTIALS}test_a_redirect_is_not_followed_with_or_without_credentials",
        f"{CREDENTIALS}test_cookies_of_the_server_are_never_sent_back",
        f"{CREDENTIALS}test_credentials_do_not_reach_another_port",
    ],
    "show your credentials in an error": ["faults/test_secrets.py::test_no_secret_in_any_message"],
    "run a script in a report of a batch": [
        "batch/test_report.py::test_no_text_becomes_markup",
        "batch/test_report.py::test_the_page_loads_nothing_and_runs_only_its_own_script",
    ],
    "have a formula computed": [
        "cli/test_hostile.py::test_a_table_of_properties_computes_nothing_in_a_spreadsheet",
        "cli/test_output.py::test_a_cell_that_begins_a_formula_is_a_text",
    ],
    # a gateway
    "decide what is in a file": ["results/test_target.py::test_a_complete_file_has_size_and_checksum"],
    "leave out files": ["faults/test_downloads_broken.py::test_one_unreadable_file_among_many"],
    "fill the disk that you download to": ["faults/test_downloads_hostile.py::test_no_room"],
    "get your credentials if it is on another host": [
        "faults/test_downloads_credentials.py::test_a_gateway_elsewhere_is_sent_credentials_only_if_it_is_trusted"
    ],
    "send you to another host": ["faults/test_downloads_credentials.py::test_a_redirect_of_a_gateway_is_not_followed"],
    "unpack anything outside": ["results/test_archive_hostile.py::", "results/test_archive_destination.py::"],
    "fill your memory or control your terminal with what": [
        "results/test_failure.py::test_texts_are_bounded_and_printable",
        "results/test_failure.py::test_a_hostile_archive_takes_no_memory",
        "cli/test_failure.py::test_hostile_texts_of_components_are_printable",
    ],
    # another registry
    "decide what an experiment contains": [f"{IMPORT}test_content_that_differs_without_a_pinned_digest_is_a_warning"],
    "move tags of the experiment": [f"{IMPORT}test_only_tags_that_are_shown_or_requested_are_moved"],
    "push an experiment other": [f"{IMPORT}test_an_import_pushes_the_requested_experiment"],
    "give you content other": [
        f"{IMPORT}test_a_digest_is_compared_before_anything_is_pushed",
        f"{IMPORT}test_content_with_another_digest_is_not_kept",
    ],
    "get your credentials, unless it is your own": [
        "faults/test_imports.py::test_a_registry_is_asked_what_its_pages_ask_and_sent_no_credentials"
    ],
    "be used over plain http": [
        f"{IMPORT}test_a_registry_over_plain_http_on_another_machine_is_refused_unless_allowed"
    ],
    # a bucket
    "decide what is in the objects": ["results/s3/test_round_trip.py::"],
    "send more bytes than the size": ["results/s3/test_hostile.py::test_a_body_is_cut_at_the_size_that_was_promised"],
    "name a key that leads out": ["results/s3/test_errors.py::test_a_hostile_key_never_leads_out_of_the_folder"],
    "have an object written": ["results/s3/test_hostile.py::test_a_key_that_is_not_in_the_folder_is_refused"],
    "keep a call busy with an endless list": ["results/s3/test_hostile.py::test_a_list_without_end_is_an_error"],
    # other users
    "read downloaded files": ["test_what_is_trusted.py::test_downloads_have_the_mode_of_the_umask_and_journals_do_not"],
    "stop a download": [
        "faults/test_downloads_shared.py::test_a_target_that_is_a_pipe",
        "faults/test_downloads_shared.py::test_a_pipe_or_a_device_under_the_name_of_a_file",
    ],
    "read the journal of a batch": [
        "test_what_is_trusted.py::test_downloads_have_the_mode_of_the_umask_and_journals_do_not",
        "batch/test_batch_journal.py::test_credentials_are_never_written",
    ],
    "read a folder that `serve --keep` or `serve --state`": [
        "cli/test_hostile.py::test_a_kept_folder_is_readable_by_its_owner_only",
        "local/test_state.py::test_secrets_are_readable_by_the_owner_only",
    ],
    "redirect a download by a link": [
        "results/downloads/test_links.py::test_a_folder_that_became_a_link_is_a_clear_failure",
        "results/test_directory.py::test_a_folder_that_is_swapped_for_a_link_again_and_again_leads_nowhere",
        "batch/test_batch_results.py::test_a_link_in_place_of_the_folder_of_a_key_is_not_followed",
        "cli/test_collect.py::test_a_link_in_place_of_the_folder_of_a_run_is_not_followed",
    ],
    # the user
    "Give `name@digest`": [f"{IMPORT}test_content_with_another_digest_is_not_kept"],
    "Keep certificates verified": ["faults/test_tls.py::test_not_checking_works_and_warns_once"],
    "Set `umask 077`": ["test_what_is_trusted.py::test_downloads_have_the_mode_of_the_umask_and_journals_do_not"],
    "Put a rest-uid in quotes": ["faults/test_rest_uids.py::test_examples_quote_the_rest_uid_in_a_shell"],
}
"""How a statement begins -> the tests that prove it; a file stands for all of its tests."""


def statements() -> list[str]:
    """Return the statements of the page."""
    return re.findall(r"^- (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)


def proofs() -> list[tuple[str, str]]:
    """Return each statement of the table with each of its tests."""
    return [(statement, test) for statement, found in PROOFS.items() for test in found]


def test_each_statement_has_a_test_and_each_test_a_statement() -> None:
    """A new statement needs an entry in the table above."""
    found = {next((begin for begin in PROOFS if line.startswith(begin)), line): line for line in statements()}

    assert list(found) == list(PROOFS)


@pytest.mark.parametrize(("statement", "test"), proofs(), ids=str)
def test_the_test_of_a_statement_is_there(statement: str, test: str) -> None:
    """It has the name that is in the table."""
    file, _, name = test.partition("::")

    assert statement
    assert re.search(rf"^(?:async )?def {name or 'test_'}", (HERE / file).read_text("utf-8"), re.MULTILINE)


def test_the_readme_links_to_the_page() -> None:
    """Readers find it."""
    readme = HERE.parent / "README.md"

    assert "(st4sd_async/docs/what_is_trusted.md)" in readme.read_text("utf-8")


def test_downloads_have_the_mode_of_the_umask_and_journals_do_not(tmp_path: Path) -> None:
    """A journal, which holds payloads but no key, is readable by its owner only."""

    async def work(server: LocalServer) -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
            files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
            async with client.batch(tmp_path / "batch.journal") as batch:
                await batch.add([st4sd_async.Launch("a", "demo", {"inputs": files})])
                async for item in batch.run():
                    assert item.run is not None
                    await item.run.download_outputs(tmp_path / "results")

    before = os.umask(0o027)
    try:
        with LocalServer(speed=100) as server:
            anyio.run(work, server)
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    journals = {name for name in modes if name.startswith("batch.journal")}
    assert {modes[name] for name in journals} == {0o600}
    assert {modes[name] for name in modes.keys() - journals} == {0o640}
    assert len(modes) > len(journals) > 0
    assert not any(server.api_key.encode() in (tmp_path / name).read_bytes() for name in journals)
