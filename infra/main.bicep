// The whole product in one resource group: function app (Flex Consumption), storage, and one queue-scaled trainer job per kind of
// machine (Container Apps). Nothing holds a key: both sides reach storage with identities of their own. See README.md.

targetScope = 'resourceGroup'

@description('Begins every name.')
@minLength(2)
@maxLength(10)
param prefix string = 'rlhf'

@description('Where everything runs. GPU machines need a region that has their workload profile.')
param location string = resourceGroup().location

@description('The kinds of trainers. A run picks one with trainer.machine; each has a queue and a job of its own.')
@minLength(1)
param machines machineName[] = ['cpu']

@description('The trainers\' image tags in the registry that this template makes: built from trainer/Dockerfile.')
param images { cpu: string, cuda: string } = { cpu: 'trainer:cpu', cuda: 'trainer:cuda' }

@description('Trainers of one kind that may run at once.')
@minValue(1)
param maxTrainers int = 2

@description('Seconds after which a container is stopped and its job goes on in the next one. Long work is cut into checkpoints anyway.')
@minValue(600)
param trainerTimeoutSeconds int = 14400

@description('When to look for new feedback (NCRONTAB, UTC).')
param retrainSchedule string = '0 0 3 * * *'

@description('The blob with the spec that re-training starts from; empty turns re-training off.')
param retrainSpec string = ''

@description('New feedback rows that are worth a re-training.')
@minValue(1)
param retrainMinRows int = 500

type machineName = 'cpu' | 't4' | 'a100'

var suffix = uniqueString(resourceGroup().id)

resource functionIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${prefix}-functions-${suffix}'
  location: location
}

resource trainerIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${prefix}-trainer-${suffix}'
  location: location
}

module monitoring 'modules/monitoring.bicep' = {
  params: {
    prefix: prefix
    suffix: suffix
    location: location
  }
}

module storage 'modules/storage.bicep' = {
  params: {
    name: take(toLower('${prefix}${suffix}'), 24)
    location: location
    machines: machines
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: toLower('${prefix}${suffix}')
  location: location
  sku: { name: 'Basic' }
  properties: { adminUserEnabled: false }
}

module access 'modules/access.bicep' = {
  params: {
    storageName: storage.outputs.name
    registryName: registry.name
    insightsName: monitoring.outputs.insightsName
    functionPrincipalId: functionIdentity.properties.principalId
    trainerPrincipalId: trainerIdentity.properties.principalId
  }
}

module functionApp 'modules/functionApp.bicep' = {
  // The app reads its storage as soon as it is there.
  dependsOn: [access]
  params: {
    prefix: prefix
    suffix: suffix
    location: location
    storageName: storage.outputs.name
    deploymentContainer: storage.outputs.deploymentContainer
    insightsName: monitoring.outputs.insightsName
    identityId: functionIdentity.id
    identityClientId: functionIdentity.properties.clientId
    retrainSchedule: retrainSchedule
    retrainSpec: retrainSpec
    retrainMinRows: retrainMinRows
  }
}

module trainers 'modules/trainers.bicep' = {
  dependsOn: [access]
  params: {
    prefix: prefix
    suffix: suffix
    location: location
    machines: machines
    images: images
    maxTrainers: maxTrainers
    timeoutSeconds: trainerTimeoutSeconds
    storageName: storage.outputs.name
    registryServer: registry.properties.loginServer
    workspaceName: monitoring.outputs.workspaceName
    identityId: trainerIdentity.id
    identityClientId: trainerIdentity.properties.clientId
  }
}

output functionAppName string = functionApp.outputs.name
output apiUrl string = functionApp.outputs.url
output storageName string = storage.outputs.name
output registryName string = registry.name
output trainerJobs string[] = trainers.outputs.jobs
