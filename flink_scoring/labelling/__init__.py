"""Labels that come later, joined to the predictions they are about.

verdicts    what a label says, and whether the prediction was right; pure
function    what Flink calls with labels and predictions
statements  the join and the windows as Flink's SQL
"""
