{{/*
Names and labels. The folder of a template is the name of its component: in templates/auth/*.yaml of
the release "blue", with `.` (or `$`) as the context:

| helper                  | result                                                              |
|-------------------------|---------------------------------------------------------------------|
| valence.name            | valence: the chart, or nameOverride                                 |
| valence.fullname        | blue-valence: release and chart, or fullnameOverride                |
| valence.component       | auth: the folder                                                    |
| valence.componentName   | blue-valence-auth                                                   |
| valence.releaseLabels   | name and instance: what every object of the release has in common   |
| valence.selectorLabels  | those and the component: for selectors, which can never be changed  |
| valence.selectorOf      | the selector labels of another component: (list $ "postgres")       |
| valence.commonLabels    | the release's labels, version, managed-by, part-of, chart           |
| valence.labels          | those and the component: for metadata                               |
| valence.…Secret         | the name of a Secret: the user's, or the one of a trial             |
| valence.createsAdmin    | "true" or empty, as all conditions below                            |

    metadata:
      name: {{ include "valence.componentName" . }}
      labels: {{- include "valence.labels" . | nindent 4 }}
*/}}

{{- define "valence.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "valence.fullname" -}}
{{- $name := include "valence.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "valence.component" -}}
{{ .Template.Name | dir | base }}
{{- end }}

{{- define "valence.componentName" -}}
{{ include "valence.fullname" . }}-{{ include "valence.component" . }}
{{- end }}

{{- define "valence.commonLabels" -}}
{{ include "valence.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: valence
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "valence.releaseLabels" -}}
app.kubernetes.io/name: {{ include "valence.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "valence.labels" -}}
{{ include "valence.commonLabels" . }}
app.kubernetes.io/component: {{ include "valence.component" . }}
{{- end }}

{{- define "valence.selectorLabels" -}}
{{ include "valence.selectorOf" (list . (include "valence.component" .)) }}
{{- end }}

{{- define "valence.selectorOf" -}}
{{ include "valence.releaseLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "valence.keyringSecret" -}}
{{ .Values.jwt.existingSecret | default (printf "%s-keyring" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.adminSecret" -}}
{{ .Values.admin.existingSecret | default (printf "%s-admin" (include "valence.fullname" .)) }}
{{- end }}

{{/* A first superuser is created if there is a password: a given one, or that of a trial. */}}
{{- define "valence.createsAdmin" -}}
{{- if or .Values.admin.existingSecret (and .Values.trial.enabled .Values.trial.generateSecrets) }}true{{ end -}}
{{- end }}

{{/* The chart itself runs the server. */}}
{{- define "valence.bundledPostgres" -}}
{{- if and .Values.trial.enabled (not .Values.database.existingSecret) }}true{{ end -}}
{{- end }}

{{- define "valence.bundledValkey" -}}
{{- if and .Values.trial.enabled (not .Values.redis.existingSecret) }}true{{ end -}}
{{- end }}
