"""Spans of a run, read by OpenTelemetry's own protocol buffers, and whether they are one tree in the words of its conventions.

    pip install opentelemetry-proto
    narthex agent show RUN --otlp | python otlp.py -
    python otlp.py FILE
"""

import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


def to_base64(value):
    """OTLP's JSON writes ids in hexadecimal digits; protocol buffers' own JSON in base64."""
    if isinstance(value, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        return {key: base64.b64encode(bytes.fromhex(inner)).decode() if key in ids else to_base64(inner) for key, inner in value.items()}
    return [to_base64(inner) for inner in value] if isinstance(value, list) else value


text = sys.stdin.read() if sys.argv[1] == "-" else open(sys.argv[1]).read()
request = json_format.Parse(json.dumps(to_base64(json.loads(text))), ExportTraceServiceRequest())
spans = [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
check("spans", len(spans) > 0, len(spans))
check("service.name", any(a.key == "service.name" and a.value.string_value for r in request.resource_spans for a in r.resource.attributes))
check("ids have 16 and 8 bytes", all(len(s.trace_id) == 16 and len(s.span_id) == 8 and any(s.span_id) for s in spans))
ids = {span.span_id for span in spans}
check("ids differ", len(ids) == len(spans))
check("one trace", len({span.trace_id for span in spans}) == 1)
tops = [span for span in spans if span.parent_span_id not in ids]
check("one tree", len(tops) == 1 and tops[0].name.startswith("invoke_agent "), [span.name for span in tops])
check("times", all(0 < s.start_time_unix_nano <= s.end_time_unix_nano for s in spans))
for span in spans:
    attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    operation = attributes.get("gen_ai.operation.name")
    required = {
        "invoke_agent": ["gen_ai.agent.name", "gen_ai.conversation.id"],
        "chat": ["gen_ai.provider.name", "gen_ai.request.model"],
        "execute_tool": ["gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.type"],
    }.get(operation)
    named = required is not None and span.name == f"{operation} " + attributes.get({"invoke_agent": "gen_ai.agent.name", "chat": "gen_ai.request.model", "execute_tool": "gen_ai.tool.name"}[operation], "")
    kind = Span.SPAN_KIND_CLIENT if operation == "chat" else Span.SPAN_KIND_INTERNAL
    failed = span.status.code == 2
    check(span.name, named and all(key in attributes for key in required) and span.kind == kind and failed == ("error.type" in attributes), sorted(attributes))
sys.exit(failures > 0)
