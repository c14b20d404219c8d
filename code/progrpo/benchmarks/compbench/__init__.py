"""T2I-CompBench++ (Karine-Huang/T2I-CompBench @1b70949) on transformers: attributes by BLIP-VQA, spatial relations by
a detector."""

CATEGORIES = ("color", "shape", "texture", "spatial")
OTHER_CATEGORIES = (
    "non",
    "3d",
    "complex",
    "numeracy",
)  # in the names of T2I-CompBench++'s other prompt files: non_spatial_val, ...
