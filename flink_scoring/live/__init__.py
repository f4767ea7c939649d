"""What the job tells Flink about itself while it runs; group `online_ml`.

scoring, labels, replay, shadow   the metrics, by what they are about
windows  sums over the last seconds
tally    what the models said about one batch
"""
