"""Ferryline carries models from where they learn to where they score, while both keep running."""
