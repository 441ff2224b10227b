"""How curved the loss is by an optimizer's own measure, and what curvature its steps bear."""
