"""What the checks of signed records say; supervision writes it, signals and pages repeat it."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence

# Whether the record can be read.
NO_OCMF = Sentence("ocmf_not", "not an OCMF record: expected {form}")
OCMF_FORM = "OCMF|{...}|{...}"
TOO_MANY_RECORDS = Sentence("ocmf_too_many", "more than {most:d} records of one session")
SEVERAL_RECORDS = Sentence("ocmf_several", "{n:d} records where one was expected")
NOT_JSON = Sentence("ocmf_not_json", "the {part} is not JSON")
NOT_AN_OBJECT = Sentence("ocmf_not_object", "the {part} is not a JSON object")
NO_SIGNATURE = Sentence("ocmf_no_sd", "signature SD is missing, or neither hex nor base64")
NO_READINGS = Sentence("ocmf_no_rd", "RD, the readings, is missing")
NOT_A_READING = Sentence("ocmf_no_reading", "RD holds something that is not a reading")
NOT_A_NUMBER = Sentence("ocmf_no_number", "RD holds a register RV that is not a number")

# Signature and key.
FORGED = Sentence("signature_wrong", "the signature doesn't fit the record's bytes")
NO_CURVE = Sentence("key_no_curve", "the key's curve can't be computed here")
NO_CURVE_BECAUSE = Sentence("key_no_curve_because", "the key's curve can't be computed here: {why}")
OTHER_KEY = Sentence("key_other", "the public key told is not the registered one")
UNREADABLE_KEY = Sentence("key_unreadable", "the registered key can't be read")
NO_KEY_REGISTERED = Sentence("key_none_registered", "no key is registered")
NO_KEY = Sentence("key_none", "no key to verify with")
BY_OWN_KEY = Sentence("key_own_fails", "of the key that came with it: {reason:words}")
UNDER_OWN_KEY = Sentence("key_own_fits", "under the key that came with it")

# Meter, register and clock against the session.
OTHER_CONNECTOR = Sentence("meter_elsewhere", "meter {meter} is registered at another connector")
NO_SERIAL = Sentence("meter_no_serial", "the registry doesn't have the meter's serial number")
NO_CHARGE = Sentence("record_no_charge", "the records don't hold begin and end of a charge")
NOT_USABLE = Sentence("energy_not_usable", "the meter says that the energy is not usable")
GREW_OTHERWISE = Sentence(
    "signed_register_grew",
    "the signed register grew by {signed} Wh, the session says {told} Wh",
)
BEGIN_APART = Sentence(
    "signed_begin_apart", "the signed begin {at} is {off:+.0f} s from the session's"
)
END_APART = Sentence("signed_end_apart", "the signed end {at} is {off:+.0f} s from the session's")
NO_CLOCK = Sentence("signed_no_clock", "the meter's clock was not set")

SIGNED_SENTENCES = tuple(value for value in vars().values() if isinstance(value, Sentence))
"""All of them."""
