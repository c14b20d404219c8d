from progrpo.config import Group as Group
from progrpo.config import Pruning as Pruning
from progrpo.config import Sampling as Sampling
from progrpo.config import load_config as load_config
from progrpo.pieces.filtering import optimal_variance_filter as optimal_variance_filter
from progrpo.pieces.pruned_sampling import sample_pruned as sample_pruned
from progrpo.pieces.train_pipeline import train_pipeline as train_pipeline
