{{/*
The arrows of the drawing, as rules; who may call whom stands nowhere else. Kubernetes takes an empty
list of peers for everybody. Here it means nobody: such a rule is left out.
*/}}

{{/* One rule: (list "to" peers (list ports…)). */}}
{{- define "valence.rule" -}}
{{- $side := index . 0 -}}
{{- $ports := index . 2 -}}
{{- with index . 1 }}
- {{ $side }}: {{- toYaml . | nindent 4 }}
  ports:
    {{- range $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

{{/* A component of this release, as a list of one peer: (list $ "postgres"). */}}
{{- define "valence.peer" -}}
- podSelector:
    matchLabels: {{- include "valence.selectorOf" . | nindent 6 }}
{{- end }}

{{- define "valence.toPostgres" -}}
{{- $peers := .Values.networkPolicy.database -}}
{{- if include "valence.ownPostgres" . -}}
{{- $peers = include "valence.peer" (list . "postgres") | fromYamlArray -}}
{{- end -}}
{{ include "valence.rule" (list "to" $peers (list .Values.networkPolicy.databasePort)) }}
{{- end }}

{{- define "valence.toRedis" -}}
{{- $peers := .Values.networkPolicy.redis -}}
{{- if include "valence.ownValkey" . -}}
{{- $peers = include "valence.peer" (list . "valkey") | fromYamlArray -}}
{{- end -}}
{{ include "valence.rule" (list "to" $peers (list .Values.networkPolicy.redisPort)) }}
{{- end }}

{{/* The public port, for the edge and for `helm test`. */}}
{{- define "valence.fromEdge" -}}
{{- $tests := include "valence.peer" (list . "tests") | fromYamlArray -}}
{{ include "valence.rule" (list "from" (concat (.Values.networkPolicy.edge | default list) $tests) (list "http")) }}
{{- end }}

{{- define "valence.fromPrometheus" -}}
{{ include "valence.rule" (list "from" .Values.networkPolicy.prometheus (list "internal")) }}
{{- end }}
