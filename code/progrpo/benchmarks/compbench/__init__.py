"""T2I-CompBench++ (Karine-Huang/T2I-CompBench @1b70949) on transformers: attributes by BLIP-VQA, spatial relations by
a detector."""

CATEGORIES = ("color", "shape", "texture", "spatial")
