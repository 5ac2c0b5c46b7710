"""`python -m onnx_sipp` is `onnx-sipp`."""

from onnx_sipp.cli.main import run

if __name__ == "__main__":
    run()
