{{/* The arrows of the drawing, as rules; who may call whom stands nowhere else. */}}

{{- define "valence.toPostgres" -}}
- to:
    {{- if include "valence.ownPostgres" . }}
    - podSelector:
        matchLabels: {{- include "valence.selectorOf" (list . "postgres") | nindent 10 }}
    {{- else }}
    {{- toYaml .Values.networkPolicy.database | nindent 4 }}
    {{- end }}
  ports:
    - {port: {{ .Values.networkPolicy.databasePort }}, protocol: TCP}
{{- end }}

{{- define "valence.toRedis" -}}
- to:
    {{- if include "valence.ownValkey" . }}
    - podSelector:
        matchLabels: {{- include "valence.selectorOf" (list . "valkey") | nindent 10 }}
    {{- else }}
    {{- toYaml .Values.networkPolicy.redis | nindent 4 }}
    {{- end }}
  ports:
    - {port: {{ .Values.networkPolicy.redisPort }}, protocol: TCP}
{{- end }}

{{/* The public port, for the edge and for `helm test`. */}}
{{- define "valence.fromEdge" -}}
- from:
    {{- toYaml .Values.networkPolicy.edge | nindent 4 }}
    - podSelector:
        matchLabels: {{- include "valence.selectorOf" (list . "tests") | nindent 10 }}
  ports:
    - {port: http, protocol: TCP}
{{- end }}

{{- define "valence.fromPrometheus" -}}
- from:
    {{- toYaml .Values.networkPolicy.prometheus | nindent 4 }}
  ports:
    - {port: internal, protocol: TCP}
{{- end }}
