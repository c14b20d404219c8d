"""What all tests share."""

import torch

# One thread for each test process: tests run side by side, and the sums of a run do not depend on the
# machine's cores.
torch.set_num_threads(1)
