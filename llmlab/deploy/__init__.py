"""Deployments of a loaded model as files for other servers, and proofs that they answer alike."""
