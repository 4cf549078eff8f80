{{/* Labels of everything that the chart makes; .role is empty for what belongs to no role. */}}
{{- define "sluice.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "sluice.selector" . }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* What a webhook is asked about. The chart ships "nothing", and the controller keeps the list; on an upgrade the
     list that is in the cluster stays, so that no release slips through until the controller looks again. */}}
{{- define "sluice.matchConditions" -}}
{{- $conditions := list (dict "name" "governed" "expression" "false") }}
{{- $live := lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" . | default dict }}
{{- range dig "webhooks" list $live }}
{{- $conditions = .matchConditions | default $conditions }}
{{- end }}
{{- toYaml $conditions }}
{{- end }}
