"""T2I-CompBench++ (Karine-Huang/T2I-CompBench @1b70949) on transformers: attributes by BLIP-VQA, spatial relations by
a detector."""

CATEGORIES = ("color", "shape", "texture", "spatial")
# Words in the names of T2I-CompBench++'s other prompt files (non_spatial_val, ...), whose judges are not here.
OTHER_CATEGORIES = ("non", "3d", "complex", "numeracy")
