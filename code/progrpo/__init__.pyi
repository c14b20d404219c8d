from progrpo.config import Group as Group
from progrpo.config import Pruning as Pruning
from progrpo.config import Sampling as Sampling
from progrpo.config import load_config as load_config
from progrpo.grpo.ovf_group import optimal_variance_filter as optimal_variance_filter
from progrpo.grpo.pruned_sampling import sample_pruned as sample_pruned
from progrpo.jobs.train_pipeline import train_pipeline as train_pipeline
