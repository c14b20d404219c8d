"""GenEval's colour classifier: CLIP ViT-L/14 on the detected object, its background painted grey."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from progrpo.benchmarks.geneval.vocabulary import classifier_colors
from progrpo.errors import UserError
from progrpo.model_files import check_model_folder, open_network, open_tokenizer
from progrpo.rewards.base import freeze
from progrpo.rewards.preprocess import clip_pixels

BACKGROUND = (153, 153, 153)  # "#999"
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BATCH = 16


def object_crop(image: Image.Image, mask: np.ndarray, box: list[float]) -> Image.Image:
    """The object alone: image (W x H) under a bool mask (H, W) on grey, cropped to its box [x0, y0, x1,
    y1]."""
    blank = Image.new("RGB", image.size, color=BACKGROUND)
    x0, y0, x1, y1 = box
    return Image.composite(image, blank, Image.fromarray(mask)).crop((x0, y0, x1, y1))


class ColorClassifier:
    """Zero-shot colour of an object among `colors`, given its class."""

    def __init__(self, model: CLIPModel, tokenizer, colors: tuple[str, ...]):
        for tower in (model.config.vision_config, model.config.text_config):
            if tower.hidden_act != "quick_gelu":
                raise UserError(
                    f"the colour classifier's activation is {tower.hidden_act!r}, but OpenAI's CLIP has quick_gelu; "
                    "use openai/clip-vit-large-patch14"
                )
        self.model, self.tokenizer, self.colors = model, tokenizer, colors
        self.size = model.config.vision_config.image_size
        self.most_tokens = model.config.text_config.max_position_embeddings
        self._directions: dict[str, Tensor] = {}

    @torch.no_grad()
    def _class_directions(self, name: str) -> Tensor:
        """(colors, D) unit text embeddings of a class: per colour the normalised mean of the normalised
        templates."""
        if name not in self._directions:
            texts = [t.format(color=color, name=name) for color in self.colors for t in TEMPLATES]
            tokens = self.tokenizer(
                texts, padding=True, truncation=True, max_length=self.most_tokens, return_tensors="pt"
            )
            embedded = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
            means = F.normalize(embedded, dim=-1).view(len(self.colors), len(TEMPLATES), -1).mean(1)
            self._directions[name] = F.normalize(means, dim=-1)
        return self._directions[name]

    def pixels(self, crop: Image.Image) -> Tensor:
        """(1, 3, size, size) input of a crop: PIL bicubic to the size of the shorter side, centre crop,
        CLIP's mean and std."""
        image = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 255
        return clip_pixels(image, self.size)

    @torch.no_grad()
    def classify(self, crops: list[Image.Image], name: str) -> list[str]:
        """The colour of each crop of an object of class `name`: argmax of the cosines (the original scales
        them by 100)."""
        directions, colors = self._class_directions(name), []
        for start in range(0, len(crops), BATCH):
            pixels = torch.cat([self.pixels(crop) for crop in crops[start : start + BATCH]]).to(self.model.device)
            embedded = F.normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
            colors += [self.colors[k] for k in (embedded @ directions.T).argmax(-1).tolist()]
        return colors


def load_color_classifier(folder: Path | str, device: torch.device | str = "cpu") -> ColorClassifier:
    """A colour classifier from a transformers CLIP folder (openai/clip-vit-large-patch14's layout); UserError
    when it is none."""
    folder = Path(folder)
    check_model_folder(folder, "clip")
    model = open_network(CLIPModel, folder)
    tokenizer = open_tokenizer(folder, model)
    return ColorClassifier(freeze(model, torch.device(device)), tokenizer, classifier_colors(folder))
