"""Interchange formats: Hugging Face checkpoints in and out, CTranslate2 and ONNX out."""
