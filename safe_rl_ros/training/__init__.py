"""Trainer, evaluation, checkpoints and reports."""
