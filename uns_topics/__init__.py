"""What is said on the broker: topics, envelope, payloads, tensors, template and version bytes. No I/O.

Everything here is pure: bytes and values in, bytes and values out. It imports nothing else of Headgate.
"""
