"""Frequency rules of the rotary family say how fast each channel pair rotates.

A file here has a rule, a subclass of ``Frequencies``, and the encoding that rotates by it, a
subclass of ``RoPE``, which the registry names. Other encodings take the rule as ``frequencies=``.
"""
