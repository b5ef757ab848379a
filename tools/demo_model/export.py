"""Writes a training state (RUN/model.pt) as a Hugging Face folder.   python export.py RUN/model.pt models/demo"""

import sys

import torch

import checkpoint
from config import ModelConfig
from model import DemoModel


def main():
    state, folder = sys.argv[1:3]
    model = DemoModel(ModelConfig())
    model.load_state_dict(torch.load(state, map_location="cpu")["model"])
    print("\n".join(checkpoint.write(model, folder)))


if __name__ == "__main__":
    main()
