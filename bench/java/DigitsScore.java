import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.time.Instant;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.annotation.JsonProperty;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ScalarFunction;

/** Scores one digits record after the other: the peer of the vectorised Python function. */
public class DigitsScore extends ScalarFunction {
    public static class Digit {
        public String ts;
        public float[] x;
        @JsonProperty("actual_y") public int actual;
    }

    public static class Scored {
        public long prediction;
        public float[] scores;
        @JsonProperty("event_time") public String eventTime;
        @JsonProperty("scored_at") public String scoredAt;
        public int actual;
    }

    private transient ObjectMapper mapper;
    private transient OrtEnvironment environment;
    private transient OrtSession session;
    private transient String input;

    @Override
    public void open(FunctionContext context) throws Exception {
        mapper = new ObjectMapper();
        environment = OrtEnvironment.getEnvironment();
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        session = environment.createSession(context.getJobParameter("model", ""), options);
        input = session.getInputNames().iterator().next();
    }

    public @DataTypeHint("BYTES") byte[] eval(@DataTypeHint("BYTES") byte[] value) throws Exception {
        Digit digit = mapper.readValue(value, Digit.class);
        Scored scored = new Scored();
        try (OnnxTensor row = OnnxTensor.createTensor(environment, new float[][] {digit.x});
                OrtSession.Result answers = session.run(Map.of(input, row))) {
            scored.prediction = ((long[]) answers.get(0).getValue())[0];
            scored.scores = ((float[][]) answers.get(1).getValue())[0];
        }
        scored.eventTime = digit.ts;
        scored.scoredAt = Instant.now().toString();
        scored.actual = digit.actual;
        return mapper.writeValueAsBytes(scored);
    }

    @Override
    public void close() throws Exception {
        if (session != null) {
            session.close();
        }
    }
}
