"""How a sweep stands, in words and as an event."""

from __future__ import annotations

import json

from rna_ray.running.state import Active, Asked, Count, Failure, State, asked, counts, event, line, lines, phase

A, B = Asked(kind="train", name="A", needs=()), Asked(kind="train", name="B", needs=())
OF_A = Asked(kind="evaluate", name="pgd of A", needs=("a",))
OF_BOTH = Asked(kind="probe", name="transfer of A", needs=("b", "a"))
UNITS = {"a": A, "b": B, "ea": OF_A, "pab": OF_BOTH}


def row(**given: object) -> dict[str, object]:
    plain = {"kind": "evaluate", "variant": "BN+IN", "axes": '{"seed":0}', "attack": "pgd", "knowledge": "fixed"}
    return {**plain, "needs": None, **given}


def test_units_are_called_as_tables_call_them() -> None:
    found = asked([
        row(unit_id="t", kind="train", attack=None, knowledge=None, needs=[]),
        row(unit_id="e", needs=["t"]), row(unit_id="e", variant="again", needs=["t"]),
        row(unit_id="n", attack="natural", knowledge="none", axes="{}"),
        row(unit_id="p", kind="probe", attack="transfer", knowledge=None),
        row(unit_id="c", kind="certify", attack=None, knowledge=None),
    ])  # fmt: skip
    assert {unit: one.name for unit, one in found.items()} == {
        "t": "BN+IN, seed=0", "e": "pgd@fixed of BN+IN, seed=0", "n": "natural of BN+IN",
        "p": "transfer of BN+IN, seed=0", "c": "certification of BN+IN, seed=0",
    }  # fmt: skip
    assert found["e"].needs == ("t",) and found["n"].needs == ()  # as a plan of an older release says


def test_each_unit_stands_in_one_place() -> None:
    assert counts(UNITS, done=(), failed=(), running=("a",)) == {
        "train": Count(running=1, ready=1), "evaluate": Count(waiting=1, networks=1),
        "probe": Count(waiting=1, networks=2),
    }  # fmt: skip
    assert counts(UNITS, done=("a",), failed=("b",), running=()) == {
        "train": Count(done=1, failed=1), "evaluate": Count(ready=1), "probe": Count(blocked=1),
    }  # fmt: skip
    assert counts(UNITS, done=("a", "b"), failed=("ea",), running=("ea",))["evaluate"] == Count(running=1)


def test_the_phase_says_whether_anything_is_to_come() -> None:
    def of(**place: int) -> str:
        return phase({"train": Count(done=1), "evaluate": Count(**place)}, at_work=False)

    assert [of(done=1), of(failed=1, blocked=2), of(ready=1, failed=1), of(waiting=1)] == [
        "done", "failed", "left", "left"
    ]  # fmt: skip
    ready = {"train": Count(ready=1)}
    assert phase(ready, at_work=True) == "running" and phase(ready, at_work=True, stopping=True) == "stopping"


def state(**given: object) -> State:
    plain = {"sweep": "norms", "counts": {"train": Count(done=1, running=1)}, "passed": 60.0, "left": 30.0}
    return State(**{**plain, **given})  # type: ignore[arg-type]


def test_the_time_left_is_a_guess_before_a_fifth_of_the_work() -> None:
    assert line(state(share=0.19)).endswith("1 min 0 s passed, about 30 s left (a first guess)")
    assert line(state(share=0.2)).endswith("1 min 0 s passed, about 30 s left")
    assert line(state(left=None)).endswith(" · 1 min 0 s passed")


def test_what_to_do_next_is_said_where_nobody_is_at_work() -> None:
    assert "rna-ray resume norms" in line(state(phase="left"))
    assert "rna-ray failures" in line(state(phase="failed"))
    assert line(state(phase="done", passed=None)).endswith("all done")
    assert lines(state(phase="done"))[0] == "norms: all done in 1 min 0 s"


def test_of_many_only_some_are_listed() -> None:
    many = tuple(Active(unit=f"{n}" * 32, seconds=1.0, epoch=n, epochs=9) for n in range(9))
    failed = tuple(Failure(unit="f", kind="train", name=f"n{n}", error="no") for n in range(9))
    said = lines(state(active=many, failures=failed))
    assert len([one for one in said if "  at work" in one]) == len([one for one in said if "  failed" in one]) == 6
    assert "  and 3 more at work" in said and "n8: no" in said[9]  # the last failure first
    assert "epochs 1/9, 2/9, 3/9, 4/9, 5/9, 6/9 …" in line(state(active=many))


def test_an_event_is_a_document_of_plain_values() -> None:
    active = Active(unit="a", seconds=1.234, epoch=2, epochs=4)
    found = json.loads(json.dumps(event(state(active=(active,), names={"a": "BN"}, share=0.5))))
    assert found == {
        "sweep": "norms", "phase": "running",
        "units": {"train": {"done": 1, "running": 1, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0,
                            "early": 0, "networks": 0, "total": 2}},
        "active": [{"unit": "a", "name": "BN", "seconds": 1.2, "epoch": 2, "epochs": 4}], "failures": [],
        "share_done": 0.5, "seconds_passed": 60.0, "seconds_left": 30.0,
    }  # fmt: skip
