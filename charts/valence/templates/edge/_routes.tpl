{{/*
The public paths and who serves them: the one list for Ingress and HTTPRoute. `kind` chooses the
limits: what is guarded, what is large, what stays open for long. The longest prefix wins.
*/}}
{{- define "valence.routes" -}}
- {path: /api/v1/auth/login, service: auth, kind: login}
- {path: /api/v1/auth, service: auth, kind: small}
- {path: /api/v1/users, service: auth, kind: small}
- {path: /api/v1/api-keys, service: auth, kind: small}
- {path: /api/v1/admin, service: auth, kind: small}
- {path: /api/v1/sentiment/analyze/batch, service: inference, kind: batch}
- {path: /api/v1/sentiment/task, service: inference, kind: stream}
- {path: /api/v1/sentiment/stream, service: inference, kind: stream}
- {path: /, service: inference, kind: rest}
{{- end }}
