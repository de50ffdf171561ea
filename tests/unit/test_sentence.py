"""A sentence is read back as it was written: values, and what is none of its texts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.domain.sentence import Sentence
from chargewatch.signals import merge
from chargewatch.signals.registry import RULES

SENTENCES = sorted(
    {*merge.SENTENCES, *(s for rule in RULES.values() for s in rule.sentences)},
    key=lambda sentence: sentence.name,
)
FELL = Sentence("fell", "{name} fell by {energy:.1f} Wh at {at:time}")

numbers = st.floats(-1e15, 1e15) | st.sampled_from([float("nan"), float("inf"), 1e300, -0.0])
names = st.text("abcXYZ019-_", min_size=1, max_size=12)


def values_of(sentence: Sentence) -> st.SearchStrategy[dict[str, object]]:
    """Return values for the fields of a sentence, as checks give them."""
    kinds = {
        **dict.fromkeys(("", "words"), names),
        "check": st.sampled_from(["key", "register"]),
        "time": st.integers(-(10**9), 4 * 10**9),
        "d": st.integers(-(2**63), 2**64),
    }
    return st.fixed_dictionaries(
        {name: kinds.get(form, numbers) for name, form in sentence.fields.items()}
    )


def test_a_sentence_says_its_values_and_gives_them_back() -> None:
    text = FELL(name="C1", energy=12.345, at=1_800_000_000.5)
    assert text == "C1 fell by 12.3 Wh at 2027-01-15T08:00:00.500000+00:00"
    at = datetime(2027, 1, 15, 8, 0, 0, 500_000, tzinfo=UTC)
    assert FELL.read(text) == {"name": "C1", "energy": "12.3", "at": at}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "C1 fell by much Wh at 2027-01-15T08:00:00+00:00",
        "C1 fell by 12.3 Wh at 2027-99-15T08:00:00+00:00",
        "C1 fell by 12.3 Wh at noon",
        "C1 fell by 12.3 Wh at 2027-01-15T08:00:00+00:00 and more",
    ],
)
def test_another_text_is_not_read(text: str) -> None:
    assert FELL.read(text) is None


@given(st.data())
def test_every_sentence_of_the_rules_reads_what_it_wrote(data: st.DataObject) -> None:
    sentence = data.draw(st.sampled_from(SENTENCES))
    values = data.draw(values_of(sentence))
    read = sentence.read(sentence(**values))
    assert read is not None
    assert set(read) == set(values)
    # Written again from what was read, the sentence is the same: nothing is lost on the way.
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in read.items()
    }
    assert sentence.plain.format_map(shown) == sentence(**values)
