// One event-driven Container Apps job per kind of machine: it starts a container when its queue has a message, and none otherwise.

param prefix string
param suffix string
param location string
param machines string[]
param images { cpu: string, cuda: string }
param maxTrainers int
param timeoutSeconds int
param storageName string
param registryServer string
param workspaceName string
param identityId string
param identityClientId string

// Container Apps' smallest serverless GPU sizes; one GPU per container.
var shapes = {
  cpu: { profile: 'Consumption', profileType: 'Consumption', cpu: '4.0', memory: '8Gi', image: images.cpu }
  t4: { profile: 'gpu-t4', profileType: 'Consumption-GPU-NC8as-T4', cpu: '8.0', memory: '56Gi', image: images.cuda }
  a100: { profile: 'gpu-a100', profileType: 'Consumption-GPU-NC24-A100', cpu: '24.0', memory: '220Gi', image: images.cuda }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2022-10-01' existing = {
  name: workspaceName
}

resource environment 'Microsoft.App/managedEnvironments@2025-01-01' = {
  name: '${prefix}-trainers-${suffix}'
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: workspace.properties.customerId
        sharedKey: workspace.listKeys().primarySharedKey
      }
    }
    workloadProfiles: concat(
      [{ name: 'Consumption', workloadProfileType: 'Consumption' }],
      map(filter(machines, machine => machine != 'cpu'), machine => {
        name: shapes[machine].profile
        workloadProfileType: shapes[machine].profileType
      })
    )
  }
}

resource jobs 'Microsoft.App/jobs@2025-01-01' = [
  for machine in machines: {
    name: '${prefix}-trainer-${machine}'
    location: location
    identity: {
      type: 'UserAssigned'
      userAssignedIdentities: { '${identityId}': {} }
    }
    properties: {
      environmentId: environment.id
      workloadProfileName: shapes[machine].profile
      configuration: {
        triggerType: 'Event'
        replicaTimeout: timeoutSeconds
        // The orchestrator owns the retries; one of the platform's would be an attempt without a fence.
        replicaRetryLimit: 0
        registries: [{ server: registryServer, identity: identityId }]
        eventTriggerConfig: {
          parallelism: 1
          replicaCompletionCount: 1
          scale: {
            minExecutions: 0
            maxExecutions: maxTrainers
            pollingInterval: 15
            rules: [
              {
                name: 'jobs'
                type: 'azure-queue'
                identity: identityId
                metadata: {
                  accountName: storageName
                  queueName: 'rlhf-jobs-${machine}'
                  queueLength: '1'
                }
              }
            ]
          }
        }
      }
      template: {
        containers: [
          {
            name: 'trainer'
            image: '${registryServer}/${shapes[machine].image}'
            resources: { cpu: json(shapes[machine].cpu), memory: shapes[machine].memory }
            env: [
              { name: 'AzureWebJobsStorage__accountName', value: storageName }
              { name: 'AzureWebJobsStorage__clientId', value: identityClientId }
              { name: 'RLHF_MACHINE', value: machine }
              // The next slice of a run comes within seconds: waiting a little saves a cold start and the loading of the model.
              { name: 'RLHF_EXIT_WHEN_IDLE_SECONDS', value: '120' }
              // Container Apps kill a container 30 s after SIGTERM.
              { name: 'RLHF_GRACE_SECONDS', value: '25' }
            ]
          }
        ]
      }
    }
  }
]

output jobs string[] = [for (machine, index) in machines: jobs[index].name]
