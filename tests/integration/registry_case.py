"""One registry with a row of every kind, and what the tests of it ask the database."""

from sqlalchemy import text

from chargewatch.storage.database import open_database

REGISTRY = {
    "version": 1,
    "operators": [{"operator_id": "OP1", "name": "甲", "credit_code": "91120", "contact": "x"}],
    "stations": [
        {
            "station_id": "TJ0001",
            "operator_id": "OP1",
            "name": "南开一站",
            "district": "120104",
            "longitude": 117.16,
            "latitude": 39.12,
            "address": "a",
            "opened_on": "2024-05-01",
        }
    ],
    "connectors": [
        {
            "connector": "TJ0001-03-1",
            "pile": "TJ0001-03",
            "station_id": "TJ0001",
            "current": "AC",
            "accuracy_class": "2",
            "rated_power_w": 7000.0,
            "min_current_a": 0.5,
            "max_current_a": 32.0,
            "model": "m",
            "manufacturer": "f",
            "serial": "s",
            "resolution_wh": 1.0,
            "cable_loss_compensated": False,
            "in_service_on": "2024-05-10",
            "signing_key": None,
        }
    ],
    "reference_meters": [
        {
            "meter": "TJ0001-M1",
            "station_id": "TJ0001",
            "scope": "connector",
            "connectors": ["TJ0001-03-1"],
            "current": "AC",
            "relative_uncertainty": 0.002,
            "coverage_factor": 2.0,
            "resolution_wh": 10.0,
            "certificate": "c",
            "calibrated_on": "2025-11-02",
            "valid_until": "2026-11-01",
        }
    ],
    "verifications": [
        {
            "connector": "TJ0001-03-1",
            "verified_on": "2024-05-08",
            "valid_until": "2027-05-07",
            "result": "pass",
            "relative_error": -0.0021,
            "expanded_uncertainty": 0.0015,
            "coverage_factor": 2.0,
            "certificate": "z",
            "institute": "i",
        }
    ],
    "tariffs": [
        {
            "operator_id": "OP1",
            "station_id": "TJ0001",
            "valid_from": "2025-12-31T16:00:00+00:00",
            "periods": [
                {
                    "from": "00:00",
                    "to": "07:00",
                    "energy_price": "0.3500",
                    "service_price": "0.4000",
                }
            ],
        }
    ],
}


async def fetch(url, query):
    async with open_database(url) as database, database.connect() as connection:
        return [dict(row) for row in (await connection.execute(text(query))).mappings()]
