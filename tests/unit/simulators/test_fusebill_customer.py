"""How the API spells a customer: against the samples of seeds 000 to 004."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from simulators.fusebill.customer import (
    Customer,
    encode,
    spell,
    spell_for_hubspot,
    timestamp,
)
from simulators.fusebill.options import Options

SEED_001_ORDER = [
    "firstName",
    "middleName",
    "lastName",
    "companyName",
    "suffix",
    "primaryEmail",
    "primaryPhone",
    "secondaryEmail",
    "secondaryPhone",
    "title",
    "reference",
    "status",
    "customerAccountStatus",
    "currency",
    "customerReference",
    "customerAcquisition",
    "monthlyRecurringRevenue",
    "netMonthlyRecurringRevenue",
    "salesforceId",
    "salesforceAccountType",
    "salesforceSynchStatus",
    "netsuiteId",
    "netsuiteSynchStatus",
    "netsuiteCustomerType",
    "portalUserName",
    "parentId",
    "quickBooksLatchType",
    "quickBooksId",
    "quickBooksSyncToken",
    "hubSpotId",
    "hubSpotCompanyId",
    "geotabId",
    "modifiedTimestamp",
    "createdTimestamp",
    "id",
    "uri",
]

DOE = Customer(
    id=2554529,
    monthly_recurring_revenue=Decimal("25.9800"),
    salesforce_id="0014100000JJ3wtAAD",
    hub_spot_id=101,
    geotab_id="0909909",
)


def test_a_customer_has_the_documented_fields_in_the_documented_order():
    answer = spell(DOE)
    assert list(answer) == SEED_001_ORDER
    assert list(answer["customerReference"]) == [
        *("reference1", "reference2", "reference3", "salesTrackingCodes", "id", "uri")
    ]
    assert list(answer["customerAcquisition"]) == [
        *("adContent", "campaign", "keyword", "landingPage", "medium", "source", "id", "uri")
    ]


def test_ids_have_the_documented_types_and_spellings():
    answer = json.loads(encode(spell(DOE)))
    assert answer["hubSpotId"] == 101
    assert answer["geotabId"] == "0909909"
    assert answer["salesforceId"] == "0014100000JJ3wt"
    assert answer["uri"] == "/customers/2554529"
    assert answer["customerReference"]["uri"] == "/2554529"


def test_money_keeps_its_zeros():
    assert b'"monthlyRecurringRevenue":25.9800,' in encode(spell(DOE))


def test_hubspot_answers_lack_three_fields_and_nest_other_ids():
    answer = spell_for_hubspot(DOE, Options())
    absent = {"geotabId", "netsuiteSynchStatus", "createdTimestamp"}
    assert list(answer) == [name for name in SEED_001_ORDER if name not in absent]
    assert answer["id"] == 2554529
    assert answer["customerReference"]["id"] == 172677
    assert answer["customerReference"]["uri"] == "/172677"
    assert answer["customerAcquisition"]["uri"] == "/customers/172677"


def test_hubspot_answers_can_be_whole():
    options = Options(hubspot_answers_full=True, hubspot_nested_ids_differ=False)
    assert spell_for_hubspot(DOE, options) == spell(DOE)


def test_modified_timestamp_counts_in_100_nanoseconds_and_ends_in_z():
    assert timestamp(1_594_132_932_853_671_499) == "2020-07-07T14:42:12.8536714Z"
    assert timestamp(1_594_132_932_000_000_100) == "2020-07-07T14:42:12.0000001Z"


def test_created_timestamp_has_three_digits_and_no_z():
    assert Customer(id=1).created_timestamp == "2024-02-07T12:59:17.793"


@pytest.mark.parametrize("sent", ["1", "0014100000JJ3w!", "0014100000JJ3wtAAA"])
def test_a_salesforce_id_that_is_none_is_refused(sent):
    with pytest.raises(ValueError, match="is not a Salesforce id"):
        Customer(id=1, salesforce_id=sent)
