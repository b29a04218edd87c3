{{/* What the pods of all components share. */}}

{{/* (list $ .Values.auth.image): registry, repository, tag and digest put together. */}}
{{- define "valence.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion -}}
{{ $root.Values.image.registry }}{{ $image.repository }}:{{ $tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* An image of somebody else's, from its own registry: (list $ .Values.trial.postgres.image). */}}
{{- define "valence.foreignImage" -}}
{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/*
Pod fields that every pod of the release has; what differs stands in its own template. With the
component's values, which may choose other nodes: (list $ .Values.auth).
*/}}
{{- define "valence.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
automountServiceAccountToken: false
# Kubernetes would add VALENCE_AUTH_PORT and the like, which are not settings of ours.
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

{{- define "valence.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* How the pods of a service lie among the nodes that they may run on: (list $ .Values.auth). */}}
{{- define "valence.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    # Each rollout spreads anew.
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

{{/* Settings in camelCase as VALENCE_ variables: (list $ .Values.auth.config (dict …the chart's)). */}}
{{- define "valence.settings" -}}
{{- $settings := merge (dict) (index . 2) (index . 1) (index . 0).Values.config -}}
{{- range $name, $value := $settings }}
- name: VALENCE_{{ snakecase $name | upper }}
  value: {{ include "valence.setting" $value | quote }}
{{- end }}
{{- end }}

{{/* A value as the environment has it: objects as JSON, lists with commas between. */}}
{{- define "valence.setting" -}}
{{- if kindIs "map" . -}}
{{ toJson . }}
{{- else if kindIs "slice" . -}}
{{ join "," . }}
{{- /* Whole numbers come as floats, which would print as 3.3554432e+07. */}}
{{- else if and (kindIs "float64" .) (eq (float64 (int64 .)) (float64 .)) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* The settings of every service that the chart decides. */}}
{{- define "valence.placement" -}}
secretsDir: /etc/valence/secrets
internalHost: 0.0.0.0
internalPort: 9090
{{- end }}

{{/* Of who takes webhooks and who sends them. */}}
{{- define "valence.webhooks" -}}
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

{{/* And those of every service that faces the public. */}}
{{- define "valence.publicPlacement" -}}
{{- $fullname := include "valence.fullname" . -}}
{{ include "valence.placement" . }}
host: 0.0.0.0
port: 8000
jwtKeyringFile: /etc/valence/keyring/keyring.json
drainSeconds: {{ .Values.shutdown.drainSeconds }}
plans: {{ toJson .Values.plans }}
{{- /* A list that is empty is a setting that is not set. */}}
{{- with .Values.corsOrigins }}
corsOrigins: {{ toJson . }}
{{- end }}
{{- with .Values.allowedHosts }}
{{- /* `helm test` calls the services by their own names. */}}
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

{{/* Endpoints go to every proxy while the pod still answers; only then comes SIGTERM. */}}
{{- define "valence.preStop" -}}
preStop:
  sleep:
    seconds: {{ .Values.shutdown.preStopSeconds }}
{{- end }}

{{/* One container that brings up the schema or waits for it: (list $ "upgrade" "owner"). */}}
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
    {{- include "valence.trustVariable" $root | nindent 4 }}
    {{- if eq $command "upgrade" }}
    {{- range $service, $role := $roles }}
    {{- if and $role (ne $service "owner") }}
    - name: VALENCE_{{ upper $service }}_ROLE
      value: {{ $role | quote }}
    {{- end }}
    {{- end }}
    {{- end }}
  resources: {{- toYaml $root.Values.migrate.resources | nindent 4 }}
  securityContext: {{- include "valence.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - name: {{ ternary "owner" "secrets" (eq $command "upgrade") }}
      mountPath: /etc/valence/{{ ternary "owner" "secrets" (eq $command "upgrade") }}
      readOnly: true
    - name: tmp
      mountPath: /tmp
    {{- include "valence.trustMount" $root | nindent 4 }}
{{- end }}
