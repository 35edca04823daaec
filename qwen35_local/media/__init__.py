"""Pictures and clips: bytes -> the patches and grid that the model is shown. NumPy and Pillow; PyAV for clips."""
