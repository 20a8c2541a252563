"""Compiled bindings, one module per kernel family. They check nothing but memory and compute nothing."""
