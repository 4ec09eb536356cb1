"""When is a run over? The table is that of the servers' observed behaviour; each row names its fact."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from st4sd_async import Status
from st4sd_async.models.finality import GRACES_FOR_IMAGES, Judge, Pair, is_final

from ..watch.courses import COURSES, FOR_EVER, GRACE, NO_IMAGE, NO_POD, NO_STATUS, NOT_CLONED, Course, Moment


def looks(course: Course) -> Iterator[Moment]:
    """What is seen by somebody who looks at each change and each second after it."""
    ends = [moment for moment, *_ in course.moments[1:]] + [FOR_EVER]
    for (began, state, exit_status, text), end in zip(course.moments, ends, strict=True):
        passed = 0
        while began + passed < end:
            yield began + passed, state, exit_status, text
            passed += 1


def shown(course: Course, now: float) -> Moment:
    return [moment for moment in course.moments if moment[0] <= now][-1]


def ended_by_patience(course: Course) -> float | None:
    """When it ends for somebody who looks at each change, and in between only when the judge asks for it."""
    judge, now = Judge(GRACE), course.moments[0][0]
    while True:
        _, state, exit_status, text = shown(course, now)
        if judge.is_over((state, exit_status), now, text):
            return now
        patience = judge.patience(now)
        nexts = [moment for moment, *_ in course.moments if moment > now]
        if patience is not None:
            nexts.append(now + patience)
        if not nexts:
            return None
        now = min(nexts)


by_fact = pytest.mark.parametrize("course", COURSES, ids=lambda course: course.fact)


@by_fact
def test_every_course_ends_when_the_run_is_over(course: Course) -> None:
    """At the first look that proves it, or when a half-final pair has stood for the grace; else never."""
    judge = Judge(GRACE)

    ended = [now for now, *pair, text in looks(course) if judge.is_over((pair[0], pair[1]), now, text)]

    assert next(iter(ended), None) == pytest.approx(course.over)


@by_fact
def test_looking_when_it_is_of_use_is_enough(course: Course) -> None:
    """Whoever looks at changes and when the judge asks for it, comes to the same end at the same time."""
    assert ended_by_patience(course) == pytest.approx(course.over)


@by_fact
def test_the_model_agrees_with_the_plain_words(course: Course) -> None:
    """`Status` comes to the same verdict, and its exit-status alone tells whether the run ended well."""
    plain, typed = Judge(GRACE), Judge(GRACE)

    for now, state, exit_status, text in looks(course):
        raw = {"experiment-state": state, "exit-status": exit_status, "error-description": text}
        status = Status.model_validate(raw)
        over = plain.is_over((state, exit_status), now, text)

        assert status.is_final == is_final((state, exit_status))
        assert typed.is_over(status.pair, now, status.error_description) == over
        assert typed.patience(now) == plain.patience(now)
        if over:
            assert status.concluded().is_success == course.success
            break


def cases(word: str) -> list[str]:
    return [word.lower(), word.upper(), word.capitalize(), word.capitalize().swapcase()]


@pytest.mark.parametrize("words", list(product(["finished", "failed"], ["Success", "Failed", "Stopped"])), ids=str)
def test_letters_of_any_case_are_the_same_word(words: tuple[str, str]) -> None:
    """The service itself writes both `failed` and `Failed`."""
    for pair in product(cases(words[0]), cases(words[1])):
        status = Status.model_validate({"experiment-state": pair[0], "exit-status": pair[1]})

        assert is_final(pair)
        assert Judge(GRACE).is_over(pair, 0.0)
        assert status.is_final
        assert status.is_success == (words[1] == "Success")


@pytest.mark.parametrize("word", [None, "", "None", "none", "N/A", "n/a", "null", "thawing"], ids=repr)
def test_a_word_that_is_not_final_never_ends_a_run(word: str | None) -> None:
    """Neither at once nor beside a final one."""
    assert not is_final((word, word))
    assert not is_final(("finished", word))
    assert not is_final((word, "Success"))


@pytest.mark.parametrize("raw", [{"warning": NO_POD}, {"message": NO_STATUS}, {}], ids=["warning", "400", "null"])
def test_no_status_at_all_is_pending(raw: dict[str, str]) -> None:
    """[3]: the first 0.3 s, and a warning may stay for ever; it is never over by time."""
    status, judge = Status.model_validate(raw), Judge(GRACE)

    assert status.is_pending
    assert not status.is_final
    assert not any(judge.is_over(status.pair, second) for second in range(int(FOR_EVER)))
    assert judge.patience(FOR_EVER) is None


def test_words_of_another_case_do_not_start_the_grace_anew() -> None:
    """[3]: `failed` of an init container and `Failed` of the orchestrator are one word to the models."""
    judge = Judge(GRACE)

    seen = [
        judge.is_over(Status.model_validate({"experiment-state": state, "exit-status": ""}).pair, now)
        for now, state in [(0, "failed"), (30, "Failed"), (60, "FAILED")]
    ]

    assert seen == [False, False, True]


def test_a_pair_that_comes_back_starts_its_grace_anew() -> None:
    """Only the time since it came back counts."""
    judge, seen = Judge(GRACE), []

    for now, pair in [
        (0, ("failed", "")),
        (29, ("failed", "")),
        (58, (None, None)),
        (59, ("failed", "")),
        (89, ("failed", "")),
        (118, ("failed", "")),
        (119, ("failed", "")),
    ]:
        seen.append(judge.is_over(pair, now))

    assert seen == [False] * 6 + [True]


def test_a_gap_in_which_nobody_looked_is_not_standing_still() -> None:
    """A laptop that slept for a day has not seen what happened: half the grace is the most it counts for."""
    judge, pair = Judge(GRACE), ("failed", "")

    seen = [judge.is_over(pair, now) for now in (0, 86_400, 86_410, 86_430)]

    assert seen == [False, False, False, True]
    assert judge.patience(86_430) == 0


def test_three_looks_are_the_least() -> None:
    """However far they are apart."""
    for grace in (0.001, 1.0, GRACE):
        judge = Judge(grace)

        assert [judge.is_over(("failed", ""), now) for now in (0, 1e6, 2e6)] == [False, False, True]


def test_a_clock_that_runs_backwards_counts_as_standing_still() -> None:
    """Neither does it end a run nor does it hold one up: time goes on from the new moment."""
    judge, pair = Judge(GRACE), ("finished", None)

    assert not judge.is_over(pair, 1000)
    assert not judge.is_over(pair, 1020)
    assert not judge.is_over(pair, 5)
    assert judge.patience(0) == 30
    assert not judge.is_over(pair, 35)
    assert judge.patience(35) == pytest.approx(10)
    assert judge.is_over(pair, 45)


def test_no_grace_is_over_at_the_first_look() -> None:
    """0 is for those who would rather err than wait, images or not; what is not half-final still is not over."""
    assert Judge(0).is_over(("failed", ""), 0)
    assert Judge(0).is_over(("failed", ""), 0, NO_IMAGE)
    assert not Judge(0).is_over(("running", "N/A"), 0)


@pytest.mark.parametrize(
    "text", [NO_IMAGE, "Failed To Pull Image x", "unable to pull images x, y", "errimagepull", "is ImagePullBackOff"]
)
def test_an_image_that_cannot_be_pulled_needs_more_patience(text: str) -> None:
    """Ten times the grace, by looks as far apart as ever; then it is over."""
    judge, now, looked = Judge(GRACE), 0.0, 0

    while not judge.is_over(("failed", ""), now, text):
        looked += 1
        now += judge.patience(now) or 0.0

    assert now == pytest.approx(GRACES_FOR_IMAGES * GRACE)
    assert looked == 20


def test_the_text_seen_last_counts() -> None:
    """What an init container says after its image was pulled needs no more patience than usual."""
    judge = Judge(GRACE)

    assert not any(judge.is_over(("failed", ""), now, NO_IMAGE) for now in range(0, 50, 10))
    assert not judge.is_over(("failed", ""), 50, NOT_CLONED)
    assert judge.patience(50) == pytest.approx(10)
    assert judge.is_over(("failed", ""), 60, NOT_CLONED)


@pytest.mark.parametrize("grace", [60.0, 0.1, 0.3, 0.7, 1.1, 1e-3, 123.456])
@pytest.mark.parametrize("began", [0.0, 0.1, 1000.0, 123456.789, 1e7])
def test_looks_taken_exactly_when_asked_end_it(grace: float, began: float) -> None:
    """Three looks are enough, however the sums of moments are rounded."""
    judge, now, seen = Judge(grace), began, []

    for _ in range(3):
        seen.append(judge.is_over(("failed", ""), now))
        patience = judge.patience(now)
        assert patience is not None
        now += patience

    assert seen == [False, False, True]
    assert now == pytest.approx(began + grace, abs=grace * 1e-4)


def test_patience_is_what_is_left_until_a_look_is_of_use() -> None:
    """Half the grace, or what is missing, less what has passed since the last look."""
    judge, pair = Judge(GRACE), ("running", "Failed")
    judge.is_over(pair, 100)

    assert [judge.patience(now) for now in (100, 110, 130, 140)] == [30, 20, 0, 0]
    assert not judge.is_over(pair, 120)
    assert judge.patience(120) == 30
    assert not judge.is_over(pair, 149)
    assert judge.patience(149) == pytest.approx(11)
    assert judge.patience(155) == pytest.approx(5)


@pytest.mark.parametrize("pair", [(None, None), ("running", "N/A"), ("finished", "Success")], ids=str)
def test_there_is_patience_only_with_a_half_final_pair(pair: Pair) -> None:
    """Neither before the first look, nor with a pair that time cannot decide about."""
    judge = Judge(GRACE)

    assert judge.patience(0) is None
    judge.is_over(("failed", ""), 0)
    assert judge.patience(0) == 30
    judge.is_over(pair, 10)
    assert judge.patience(10) is None
