"""The sentence about integers, and its data."""

from dataclasses import replace

from onnx_sipp.report.quantizing import QuantizedWeight, QuantizeReport, quantizing_sentence

REPORT = QuantizeReport(
    kind="int8",
    weights=[
        QuantizedWeight("a", [2, 50], 100, 70, 72, 2),
        QuantizedWeight("b", [10, 20], 200, 30, 30, 1),
    ],
    left=[],
    relative_errors={"y": 0.0123, "z": None},
    outputs_pruned=[],
    bytes_before=5000,
    bytes_after=1300,
)


def test_sums():
    assert (REPORT.zeros_before, REPORT.zeros) == (100, 102)
    data = REPORT.to_dict()
    assert (data["zeros_before"], data["zeros"]) == (100, 102)
    assert data["weights"][0]["name"] == "a"


def test_sentence():
    text = quantizing_sentence(REPORT)
    assert "100 of 300 elements were zero, 102 are the zero point now" in text
    assert "5,000 bytes before, 1,300 after" in text
    assert "by 0.012 (relative error)" in text
    assert "Floating point" not in text


def test_what_is_not_known_or_stays_is_not_made_up():
    unknown = replace(REPORT, relative_errors={"z": None}, left=["emb"])
    assert "relative error" not in quantizing_sentence(unknown)
    assert "Floating point stayed: emb." in quantizing_sentence(unknown)
