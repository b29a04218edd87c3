{{/*
The public paths and their services, for Ingress and HTTPRoute alike. `kind` selects the limits of a
route: rate, size of bodies, timeouts. The longest prefix wins.
*/}}
{{- define "valence.routes" -}}
- {path: /api/v1/auth/login, service: auth, kind: login}
- {path: /api/v1/auth, service: auth, kind: small}
- {path: /api/v1/users, service: auth, kind: small}
- {path: /api/v1/users/me/export, service: auth, kind: stream}
- {path: /api/v1/api-keys, service: auth, kind: small}
- {path: /api/v1/admin, service: auth, kind: small}
- {path: /api/v1/sentiment/analyze/batch, service: inference, kind: batch}
- {path: /api/v1/sentiment/task, service: inference, kind: stream}
- {path: /api/v1/sentiment/stream, service: inference, kind: stream}
- {path: /, service: inference, kind: rest}
{{- end }}

{{/* The annotations of the Ingress with one kind of routes: (list $ "login"). */}}
{{- define "valence.edgeAnnotations" -}}
{{- $ingress := (index . 0).Values.ingress -}}
{{- $limits := $ingress.limits -}}
{{- $kind := index . 1 -}}
{{- /* The services reject large bodies with a reason; nginx rejects what is far above their limits. */}}
{{- $sizes := dict "login" "64k" "small" "128k" "batch" $ingress.batchBodySize "stream" "64k" "rest" "512k" -}}
nginx.ingress.kubernetes.io/ssl-redirect: "true"
nginx.ingress.kubernetes.io/proxy-body-size: {{ index $sizes $kind }}
nginx.ingress.kubernetes.io/proxy-connect-timeout: "2"
nginx.ingress.kubernetes.io/proxy-next-upstream-tries: "3"
{{- if eq $kind "login" }}
nginx.ingress.kubernetes.io/limit-rpm: {{ $limits.loginPerMinute | quote }}
nginx.ingress.kubernetes.io/limit-burst-multiplier: "1"
{{- else }}
nginx.ingress.kubernetes.io/limit-rps: {{ $limits.requestsPerSecond | quote }}
nginx.ingress.kubernetes.io/limit-burst-multiplier: {{ $limits.burstMultiplier | quote }}
{{- end }}
{{- if eq $kind "stream" }}
nginx.ingress.kubernetes.io/proxy-buffering: "off"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ $ingress.streamSeconds | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ $ingress.streamSeconds | quote }}
{{- else }}
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ $ingress.requestSeconds | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ $ingress.requestSeconds | quote }}
{{- end }}
{{- end }}
