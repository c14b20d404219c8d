"""What a record of the miniature world asks for, whatever its words."""

from progrpo.miniature.prompts import PLACES, RELATIONS


def meaning(record: dict) -> tuple:
    """What a record asks for, hashable: equal for records that the same scenes satisfy, however they say it."""
    clauses = [
        (c["class"], c["count"], c.get("color"), c.get("texture"), PLACES.get(c.get("place")))
        for c in record["include"]
    ]
    relations = set()
    for subject, clause in zip(clauses, record["include"], strict=True):
        if "position" in clause:
            relation, target = clause["position"]
            side, pair = RELATIONS.index(relation), (subject, clauses[target])
            relations.add((RELATIONS[side - side % 2], pair if side % 2 == 0 else pair[::-1]))
    return frozenset(clauses), frozenset(relations)
