"""Scores a Kafka stream on Flink with a model that is followed, and swapped, while the job runs.

job      the command line of `flink run -pym ferryline.flink_scoring.job`
options  what a job is told: the pipeline, flags and environment, checked
topics   what the job asks Kafka before it is submitted
plan     the tables and the one INSERT statement of the job
function what is pickled with the job; with job and plan, the only modules that import pyflink
worker   what a Python worker does for the function
following  the models a Python worker follows, shared by all functions of its process
scorer   a batch of records in, a scored record or a reason for each out; no Flink, Kafka or thread in it
binding  how a model's tensors and a pipeline's features and classes fit together
timeline which generation scores which offsets, also after a restore
live     what the job shows of itself in Flink's metrics
labelling  labels that come later, joined to predictions
shadowing  a version that is tried beside the one that serves
dead_letters  the ferry-dlq command
several  several pipelines in one job; tuning: batch sizes from a latency
restoring  where a job's state lies, and how a lost job goes on from it
sql      models as functions of Flink's SQL
"""
