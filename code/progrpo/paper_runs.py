"""The paper's models and runs by the names that every tier's configuration gives them, for code that means one of them."""

SD35M = "sd35m"
SD14 = "sd14"

FLOWGRPO = "flowgrpo_sd35m"
PROGRPO = "progrpo_sd35m"
PROGRPO_FLASH = "progrpo_flash_sd35m"
DANCEGRPO_SD14 = "dancegrpo_sd14"
PROGRPO_SD14 = "progrpo_sd14"
