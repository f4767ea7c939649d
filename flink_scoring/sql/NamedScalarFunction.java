package ferryline;

import java.util.List;
import java.util.Optional;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.functions.FunctionDefinition;
import org.apache.flink.table.functions.python.PythonScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.ArgumentCount;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.InputTypeStrategy;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.utils.LogicalTypeCasts;

/**
 * A Python function whose arguments have names in every refusal: for the planner alone, clusters get the plain
 * function.
 */
public class NamedScalarFunction extends PythonScalarFunction {
    private final transient PythonScalarFunction plain;
    private final transient String[] names;
    private final transient DataType[] types;

    public NamedScalarFunction(
            PythonScalarFunction plain, String name, String[] names, DataType[] types, DataType result) {
        super(name, plain.getSerializedPythonFunction(), types, result, plain.getPythonFunctionKind(),
                plain.isDeterministic(), plain.takesRowAsInput(), plain.getPythonEnv());
        this.plain = plain;
        this.names = names;
        this.types = types;
    }

    public TypeInference getTypeInference(DataTypeFactory factory) {
        return TypeInference.newBuilder()
                .inputTypeStrategy(new NamedArguments(names, types))
                .outputTypeStrategy(super.getTypeInference(factory).getOutputTypeStrategy())
                .build();
    }

    // protected, for the compiler makes private methods static, and then this one is not found
    protected Object writeReplace() {
        return plain;
    }

    /** Flink's own rule for arguments of fixed types; its refusals name the argument and the whole call. */
    public static class NamedArguments implements InputTypeStrategy {
        private final String[] names;
        private final DataType[] types;
        private final InputTypeStrategy rule;

        public NamedArguments(String[] names, DataType[] types) {
            this.names = names;
            this.types = types;
            this.rule = InputTypeStrategies.explicitSequence(names, types);
        }

        public ArgumentCount getArgumentCount() {
            return rule.getArgumentCount();
        }

        public List getExpectedSignatures(FunctionDefinition definition) {
            return rule.getExpectedSignatures(definition);
        }

        public Optional inferInputTypes(CallContext call, boolean throwOnFailure) {
            if (hasConstantsOnly(call)) {
                return call.fail(throwOnFailure, "%s with constants alone: Flink gives a Python function one"
                        + " column at least. Take an argument from a table, or make one of them a column"
                        + " by adding 0 * RAND()", new Object[] {signature(call)});
            }
            Optional found = rule.inferInputTypes(call, false);
            return found.isPresent() || !throwOnFailure ? found : refuse(call);
        }

        private boolean hasConstantsOnly(CallContext call) {
            for (int i = 0; i < names.length; i++) {
                if (!call.isArgumentLiteral(i)) {
                    return false;
                }
            }
            return true;
        }

        private Optional refuse(CallContext call) {
            List given = call.getArgumentDataTypes();
            for (int i = 0; i < names.length; i++) {
                DataType type = (DataType) given.get(i);
                if (!LogicalTypeCasts.supportsImplicitCast(type.getLogicalType(), types[i].getLogicalType())) {
                    return call.fail(true, "%s: %s takes %s and was given %s",
                            new Object[] {signature(call), names[i], types[i], type});
                }
            }
            return call.fail(true, "%s was given %s", new Object[] {signature(call), given});
        }

        private String signature(CallContext call) {
            StringBuilder text = new StringBuilder(call.getName()).append("(");
            for (int i = 0; i < names.length; i++) {
                text.append(i == 0 ? "" : ", ").append(names[i]).append(" ").append(types[i]);
            }
            return text.append(")").toString();
        }
    }
}
