{{/* Parts that the pods of all components share. */}}

{{/* An image of Valence: registry, repository, tag and digest. (list $ .Values.auth.image) */}}
{{- define "valence.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion -}}
{{ $root.Values.image.registry }}{{ $image.repository }}:{{ $tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* A third-party image, without image.registry: (list $ .Values.trial.postgres.image). */}}
{{- define "valence.thirdPartyImage" -}}
{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/*
The fields of a pod's spec that are the same in every pod of the release. The component's values may
replace nodeSelector and tolerations: (list $ .Values.auth).
*/}}
{{- define "valence.podSpec" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
automountServiceAccountToken: false
# The variables of service links (VALENCE_AUTH_PORT, …) would be taken for unknown settings.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector | default $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations | default $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "valence.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Spread over nodes and zones, affinity and priority: (list $ .Values.auth). */}}
{{- define "valence.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    # Spread the pods of each rollout separately.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "valence.selectorLabels" $root | nindent 8 }}
  {{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "valence.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
labels:
  {{- include "valence.selectorLabels" $root | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
annotations:
  kubectl.kubernetes.io/default-container: {{ include "valence.component" $root }}
  {{- if $root.Values.metrics.annotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "9090"
  prometheus.io/path: /metrics
  {{- end }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
Settings as VALENCE_… variables; of the same setting, the chart's comes before the component's and
that before the shared one: (list $ .Values.auth.config (dict "port" 8000)).
*/}}
{{- define "valence.env" -}}
{{- $settings := merge (dict) (index . 2) (index . 1) (index . 0).Values.config -}}
{{- range $name, $value := $settings }}
- name: VALENCE_{{ snakecase $name | upper }}
  value: {{ include "valence.envValue" $value | quote }}
{{- end }}
{{- end }}

{{/* A value as the text of a variable: objects as JSON, lists separated by commas. */}}
{{- define "valence.envValue" -}}
{{- if kindIs "map" . -}}
{{ toJson . }}
{{- else if kindIs "slice" . -}}
{{ join "," . }}
{{- /* Helm parses whole numbers as floats, which would print as 3.3554432e+07. */}}
{{- else if and (kindIs "float64" .) (eq (float64 (int64 .)) (float64 .)) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* Settings that the chart fixes in every service. */}}
{{- define "valence.commonSettings" -}}
secretsDir: /etc/valence/secrets
internalHost: 0.0.0.0
internalPort: 9090
{{- end }}

{{/* Settings of the services that accept webhooks (inference) and send them (the worker). */}}
{{- define "valence.webhookSettings" -}}
{{- with .Values.webhooks }}
{{- if .enabled }}
webhooksEnabled: true
webhooksAllowHttp: {{ .allowHttp }}
{{- with .allowedNetworks }}
webhooksAllowedNetworks: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that the chart fixes in the services with a public port, valence.commonSettings included. */}}
{{- define "valence.httpSettings" -}}
{{- $fullname := include "valence.fullname" . -}}
{{ include "valence.commonSettings" . }}
host: 0.0.0.0
port: 8000
jwtKeyringFile: /etc/valence/keyring/keyring.json
drainSeconds: {{ .Values.shutdown.drainSeconds }}
plans: {{ toJson .Values.plans }}
{{- /* An empty list leaves the setting unset. */}}
{{- with .Values.corsOrigins }}
corsOrigins: {{ toJson . }}
{{- end }}
{{- with .Values.allowedHosts }}
{{- /* `helm test` calls the services by the names of their Services. */}}
{{- $own := list (printf "%s-auth" $fullname) (printf "%s-inference" $fullname) }}
allowedHosts: {{ concat . $own | toJson }}
{{- end }}
trustedProxies: {{ toJson .Values.ingress.trustedProxies }}
{{- end }}

{{- define "valence.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: internal}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: internal}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: internal}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 3
{{- end }}

{{/* The pod goes on serving until every proxy has removed its endpoint; SIGTERM comes after that. */}}
{{- define "valence.preStop" -}}
preStop:
  sleep:
    seconds: {{ .Values.shutdown.preStopSeconds }}
{{- end }}

{{/* An init container that migrates the schema, or waits for that: (list $ "upgrade") or "wait". */}}
{{- define "valence.schemaContainer" -}}
{{- $root := index . 0 -}}
{{- $command := index . 1 -}}
{{- $roles := $root.Values.database.roles -}}
- name: {{ ternary "migrate" "wait-for-schema" (eq $command "upgrade") }}
  image: {{ include "valence.image" (list $root $root.Values.migrate.image) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [python, -m, valence_common.migrations, {{ $command }}]
  env:
    - name: VALENCE_SECRETS_DIR
      value: /etc/valence/{{ ternary "owner" "secrets" (eq $command "upgrade") }}
    - name: VALENCE_SCHEMA_DEADLINE_SECONDS
      value: {{ $root.Values.migrate.deadlineSeconds | quote }}
    {{- include "valence.caEnv" $root | nindent 4 }}
    {{- if eq $command "upgrade" }}
    {{- range $service, $role := $roles }}
    {{- if and $role (ne $service "owner") }}
    - name: VALENCE_{{ upper $service }}_ROLE
      value: {{ $role | quote }}
    {{- end }}
    {{- end }}
    {{- end }}
  resources: {{- toYaml $root.Values.migrate.resources | nindent 4 }}
  securityContext: {{- include "valence.containerSecurityContext" $root | nindent 4 }}
  volumeMounts:
    - name: {{ ternary "owner" "secrets" (eq $command "upgrade") }}
      mountPath: /etc/valence/{{ ternary "owner" "secrets" (eq $command "upgrade") }}
      readOnly: true
    - name: tmp
      mountPath: /tmp
    {{- include "valence.caMount" $root | nindent 4 }}
{{- end }}
