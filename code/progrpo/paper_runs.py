"""The paper's models and runs by the names that every tier's configuration gives them, for code that means one of them."""

SD35M = "sd35m"
SD14 = "sd14"

FLOWGRPO = "flowgrpo_sd35m"
PROGRPO = "progrpo_sd35m"
PROGRPO_FLASH = "progrpo_flash_sd35m"
DANCEGRPO_SD14 = "dancegrpo_sd14"
PROGRPO_SD14 = "progrpo_sd14"

NAMES = {  # what the paper calls them, in its tables and figures
    "base_sd35m": "SD3.5-M",
    "base_sd14": "SD-v1.4",
    "base_sd15": "SD-v1.5",
    FLOWGRPO: "Flow-GRPO",
    PROGRPO: "Pro-GRPO",
    PROGRPO_FLASH: "Pro-GRPO-Flash",
    DANCEGRPO_SD14: "DanceGRPO",
    PROGRPO_SD14: "Pro-GRPO",
    "dancegrpo_sd14_multi": "DanceGRPO",
    "progrpo_sd14_multi": "Pro-GRPO",
    "dancegrpo_sd15": "DanceGRPO",
    "progrpo_sd15": "Pro-GRPO",
}


def paper_name(name: str) -> str:
    """The paper's name of a run or base model; the given one for what the paper does not have."""
    return NAMES.get(name, name)


def distinct_names(names: list[str]) -> list[str]:
    """The paper's names of several, with the own name behind where two of them would read alike."""
    told = [paper_name(name) for name in names]
    return [f"{text} ({name})" if told.count(text) > 1 else text for name, text in zip(names, told, strict=True)]
