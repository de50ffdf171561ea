"""Signals speak the visitor's language: every sentence of every rule, values and times kept."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from chargewatch.signals.merge import TIMES_ON_DAYS
from chargewatch.signals.registry import RULES
from chargewatch.signals.rule import Rule
from chargewatch.web.finding import finding_words, signed_words
from chargewatch.web.formats import Formats
from chargewatch.web.language import Translator

SAMPLES = {
    "": "X-9",
    "time": 1_800_000_000.0,
    "d": 7,
    "check": "key",
    "words": "no key is registered",
}


def formats(language: str) -> Formats:
    return Formats(
        t=Translator(language),
        zone=ZoneInfo("Asia/Shanghai"),
        currency="CNY",
        now=datetime(2027, 1, 16, tzinfo=UTC),
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_every_sentence_is_worded_in_both_languages(rule: Rule) -> None:
    for sentence in rule.sentences:
        values = {name: SAMPLES.get(form, 41.5) for name, form in sentence.fields.items()}
        english = f"{sentence(**values)}; {TIMES_ON_DAYS(n=3, days=2)}"
        chinese = finding_words(rule.code, english, formats("zh"))
        assert chinese.endswith("2 天内共 3 次")
        assert max(chinese.split("；")[0]) >= "\u4e00", f"{sentence.name} stays English: {chinese}"
        if not any(form == "time" for form in sentence.fields.values()):
            assert finding_words(rule.code, english, formats("en")) == english


def test_times_are_those_of_the_page_and_numbers_stay() -> None:
    detail = (
        "start_wh of the session is 100 Wh, the register at 2027-01-15T08:00:00+00:00 was "
        "900 Wh; 4 times"
    )
    assert finding_words("session_register_mismatch", detail, formats("zh")) == (
        "会话的 start_wh 为 100 Wh，而 2027-01-15 16:00:00 的表码为 900 Wh；共 4 次"
    )
    assert finding_words("session_register_mismatch", detail, formats("en")) == (
        "start_wh of the session is 100 Wh, the register at 2027-01-15 16:00:00 was 900 Wh; 4 times"
    )


def test_what_checks_of_a_signed_record_say_is_worded_inside_the_signal() -> None:
    detail = (
        "key: of the key that came with it: the signature doesn't fit the record's bytes; "
        "register: the signed register grew by 28280 Wh, the session says 71506 Wh; "
        "the record was used for another session too"
    )
    assert finding_words("signed_record_mismatch", detail, formats("zh")) == (
        "公钥：随记录送来的公钥：签名与记录的字节不符；"
        "示值：签名表码增加 28280 Wh，而会话为 71506 Wh；该记录还用于另一次会话"
    )
    assert finding_words("signed_record_mismatch", detail, formats("en")) == detail
    assert signed_words("no key is registered", formats("zh")) == "没有登记公钥"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("gone_since_version_0", "words of a rule that is gone; {braces} and all"),
        ("silence", "words that this rule said once"),
        ("silence", ""),
    ],
)
def test_what_no_sentence_reads_is_shown_as_it_was_written(code: str, detail: str) -> None:
    assert finding_words(code, detail, formats("en")) == detail
