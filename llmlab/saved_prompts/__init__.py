"""Saved system prompts and prompt templates: one Markdown file each, in the data folder."""

from __future__ import annotations

from llmlab.saved_prompts.library import KINDS, PromptLibrary, SavedPrompt, Undo

__all__ = ["KINDS", "PromptLibrary", "SavedPrompt", "Undo"]
