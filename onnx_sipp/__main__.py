"""`python -m onnx_sipp` is `onnx-sipp`."""

from onnx_sipp.cli.main import main

if __name__ == "__main__":
    main()
