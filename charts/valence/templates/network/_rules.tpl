{{/*
Rules of network policies: each is one arrow of the drawing in ARCHITECTURE.md. To Kubernetes an empty
list of peers means every peer. In the values it means none: the rule is left out.
*/}}

{{/* One rule: (list "to" peers (list 5432)). */}}
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
{{- if include "valence.bundledPostgres" . -}}
{{- $peers = include "valence.peer" (list . "postgres") | fromYamlArray -}}
{{- end -}}
{{ include "valence.rule" (list "to" $peers (list .Values.networkPolicy.databasePort)) }}
{{- end }}

{{- define "valence.toRedis" -}}
{{- $peers := .Values.networkPolicy.redis -}}
{{- if include "valence.bundledValkey" . -}}
{{- $peers = include "valence.peer" (list . "valkey") | fromYamlArray -}}
{{- end -}}
{{ include "valence.rule" (list "to" $peers (list .Values.networkPolicy.redisPort)) }}
{{- end }}

{{/* The public port, open to the ingress controller or gateway and to `helm test`. */}}
{{- define "valence.fromEdge" -}}
{{- $tests := include "valence.peer" (list . "tests") | fromYamlArray -}}
{{ include "valence.rule" (list "from" (concat (.Values.networkPolicy.edge | default list) $tests) (list "http")) }}
{{- end }}

{{- define "valence.fromPrometheus" -}}
{{ include "valence.rule" (list "from" .Values.networkPolicy.prometheus (list "internal")) }}
{{- end }}
