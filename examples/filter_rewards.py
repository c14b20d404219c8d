"""Which trajectories of a group to keep, from rewards in a list, an array or a tensor: python examples/filter_rewards.py"""

import numpy as np
import torch

from progrpo import optimal_variance_filter

rewards = [0.2, 0.9, 0.5, 0.1, 0.4, 0.8]
kept = optimal_variance_filter(rewards, keep=4)
print("kept", kept, "of", rewards)
print("best and worst alone:", optimal_variance_filter(np.array(rewards), keep=2))
print("of a tensor:", optimal_variance_filter(torch.tensor(rewards), keep=3))
